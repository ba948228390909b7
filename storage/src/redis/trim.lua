-- Forgets the first entries of a partition, which are in the archive, if every group has acknowledged them, and not
-- only just now: what was acknowledged lately may have to be applied again. One step, so that no group can be made or
-- read in between.
--
-- KEYS: events, trimmed. ARGV: the last id to be forgotten, the id behind it, how many blocks of the archive are
-- forgotten then, how the key of a group's trail begins, seconds of a span of the trail, spans that count.
-- The trails are of the same slot; which groups there are is known only here.
-- Answers the group that holds it up, or nothing.

local events, trimmed = KEYS[1], KEYS[2]
local last, behind, blocks, trail = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local oldest_span = math.floor(redis.call('TIME')[1] / ARGV[5]) - ARGV[6]

local function holds(group)
  if is_before(group['last-delivered-id'], last) then return true end
  if group.pending > 0 and not is_before(last, redis.call('XPENDING', events, group.name)[2]) then return true end
  local spans = redis.call('HGETALL', trail .. group.name)
  for at = 1, #spans, 2 do
    local first = string.match(spans[at + 1], '^%S+')
    if tonumber(spans[at]) >= oldest_span and not is_before(last, first) then return true end
  end
  return false
end

local groups = redis.call('XINFO', 'GROUPS', events)
if #groups == 0 then return 'nobody' end
for _, group in ipairs(groups) do
  group = fields(group)
  if holds(group) then return group.name end
end
-- A stream without any entry could not be told from one that is lost.
local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)
if not newest[1] or not is_before(last, newest[1][1]) then return redis.error_reply('ERR the last entry stays') end
local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1][1]
if is_before(last, first) then return false end
redis.call('XTRIM', events, 'MINID', '=', behind)
redis.call('HSETNX', trimmed, 'first', first)
if blocks > tonumber(redis.call('HGET', trimmed, 'blocks') or 0) then
  redis.call('HSET', trimmed, 'blocks', ARGV[3], 'last', last)
end
return false
