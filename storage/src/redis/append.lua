#!lua
-- Appends events to one partition. Takes many commands, answers each, in their order. A command is done as a
-- whole or not at all: everything that can fail is asked before its first write, and that first write is the
-- XADD, after which only HSET and SET follow, on keys already known to be of the right type.
--
-- The first line makes Redis refuse the whole call before it starts when memory is full, the disk fails or
-- the server is a replica.
--
-- KEYS: events, heads, users, marks, then the record of each command that has one, in the order of commands.
-- ARGV: window ms, how far ahead an id may be in ms, then nine values per command:
--   what, subject, version, kind, id, payload, body checksum, first, second
--   what        first            second
--   plain       -                -
--   header      fingerprint      -                  has a record
--   id          fingerprint      ms inside the id   has a record
--   register    name             password hash
--   mark        reader:peer      seq
--
-- Answers: 'N seq entry' new, 'R id seq entry' replayed, 'U' unchanged, 'T' taken, 'C' conflict,
-- 'W' outside the window, 'E text' could not append.

local events, heads, users, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local window, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local FINGERPRINT_BYTES = 16

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Lua's numbers are doubles: exact to 2^53. Its own conversion to text keeps 14 digits only.
local function text(number)
  return string.format('%.0f', number)
end

local function low32(number)
  return number % 4294967296
end

-- A number that is there but cannot be read must not become a new beginning: nil.
local function number_or_0(stored)
  return tonumber(stored or 0)
end

local offset = number_or_0(redis.call('HGET', heads, '#'))

-- A head behind the log (a damaged or lost key) would give numbers a second time and overwrite what has them.
-- An entry without a readable offset proves nothing: whoever reads it parks it.
local function damage()
  if not offset then return 'E the last offset is not a number' end
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  local fields = last and last[2] or {}
  for at = 1, #fields, 2 do
    local found = fields[at] == 'n' and tonumber(fields[at + 1])
    if found and found > offset then
      return 'E the last offset is ' .. text(offset) .. ', the last entry has ' .. text(found)
    end
  end
end

-- Appends the event of the command at ARGV[at]. Returns its seq and entry, or nil and why not.
local function append(at)
  local subject, version, kind, id, payload, body = unpack(ARGV, at + 1, at + 6)
  local head = number_or_0(redis.call('HGET', heads, subject))
  if not head then return nil, 'the head of ' .. subject .. ' is not a number' end
  local seq, next_offset = head + 1, offset + 1
  local checksum = bit.tohex(bit.bxor(tonumber(body), low32(seq), bit.rol(low32(next_offset), 16)))
  seq = text(seq)
  local entry = redis.pcall('XADD', events, '*', 'v', version, 't', kind, 's', subject, 'q', seq,
    'n', text(next_offset), 'i', id, 'p', payload, 'c', checksum)
  if type(entry) == 'table' then return nil, entry.err end
  redis.call('HSET', heads, subject, seq, '#', text(next_offset))
  offset = next_offset
  return seq, entry
end

local function answer(seq, entry)
  if seq then return 'N ' .. seq .. ' ' .. entry end
  return 'E ' .. entry
end

local function append_once(at, record, keep, is_late)
  local fingerprint = ARGV[at + 7]
  local found = redis.call('GET', record)
  if found then
    if string.sub(found, 1, FINGERPRINT_BYTES) ~= fingerprint then return 'C' end
    return 'R ' .. string.sub(found, FINGERPRINT_BYTES + 1)
  end
  if is_late then return 'W' end
  local seq, entry = append(at)
  if seq then
    local id = ARGV[at + 4]
    redis.call('SET', record, fingerprint .. id .. ' ' .. seq .. ' ' .. entry, 'PX', text(keep))
  end
  return answer(seq, entry)
end

local next_record = 5
local function record()
  next_record = next_record + 1
  return KEYS[next_record - 1]
end

local commands = {
  plain = function(at)
    return answer(append(at))
  end,

  header = function(at)
    return append_once(at, record(), window, false)
  end,

  id = function(at)
    local ms = tonumber(ARGV[at + 8])
    -- An id taken now may lie `ahead` of now, so it stays inside the window for window + ahead; as much
    -- again is for a clock that is set back.
    return append_once(at, record(), window + 2 * ahead, ms < now - window or ms > now + ahead)
  end,

  register = function(at)
    local name, password_hash = ARGV[at + 7], ARGV[at + 8]
    if redis.call('HEXISTS', users, name) == 1 then return 'T' end
    local seq, entry = append(at)
    if seq then redis.call('HSET', users, name, password_hash) end
    return answer(seq, entry)
  end,

  mark = function(at)
    local pair, mark = ARGV[at + 7], ARGV[at + 8]
    local highest = number_or_0(redis.call('HGET', marks, pair))
    if not highest then return 'E the mark of ' .. pair .. ' is not a number' end
    if tonumber(mark) <= highest then return 'U' end
    local seq, entry = append(at)
    if seq then redis.call('HSET', marks, pair, mark) end
    return answer(seq, entry)
  end,
}

local damaged = damage()
local answers = {}
for at = 3, #ARGV, 9 do
  answers[#answers + 1] = damaged or commands[ARGV[at]](at)
end
return answers
