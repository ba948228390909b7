-- Acknowledges entries, counts those that were pending still, and leaves a trail: per span of time the first and the
-- last id, so that what was acknowledged lately can be found again.
--
-- KEYS: events, applied, trail. ARGV: group, consumer, seconds of a span, spans kept, then ids in their order.

local FIRST_ID = 5
local acked = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, FIRST_ID))
if acked > 0 then redis.call('HINCRBY', KEYS[2], ARGV[2], acked) end

local span = tostring(math.floor(redis.call('TIME')[1] / ARGV[3]))
local first, last = ARGV[FIRST_ID], ARGV[#ARGV]
local noted = redis.call('HGET', KEYS[3], span)
if noted then
  local noted_first, noted_last = string.match(noted, '(%S+) (%S+)')
  if is_before(noted_first, first) then first = noted_first end
  if is_before(last, noted_last) then last = noted_last end
else
  forget_old_spans(KEYS[3], ARGV[4])
end
redis.call('HSET', KEYS[3], span, first .. ' ' .. last)
return acked
