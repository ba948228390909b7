#!lua
-- Appends events to one partition or more. Takes many commands, answers each, in their order. A command is done
-- as a whole or not at all: everything that can fail is asked before its first write, and that first write is
-- the XADD, after which only HSET and SET follow, on keys already known to be of the right type. Whatever fails
-- all the same fails the call, and its outcome is unknown.
--
-- The first line makes Redis refuse the whole call before it starts when memory is full, the disk fails or
-- the server is a replica.
--
-- One call is the cheapest: what is asked and written once per partition and not once per command (heads,
-- records) is half of the work. On a cluster a call takes the partitions of one slot: one.
--
-- KEYS: per partition events, heads, users, marks; then the record of each command that has one, in the order of
-- commands.
-- ARGV: window ms, how far ahead an id may be in ms, how many partitions; per partition: how many commands,
-- whether to look for damage (1 or 0); then ten values per command:
--   what, subject, version, kind, id, payload, trace (may be empty), body checksum, first, second
--   what        first            second
--   plain       -                -
--   header      fingerprint      -                  has a record
--   id          fingerprint      ms inside the id   has a record
--   register    name             password hash
--   mark        reader:peer      seq
--
-- Answers: 'N seq entry' new, 'R id seq entry' replayed, 'U' unchanged, 'T' taken, 'C' conflict,
-- 'W' outside the window, 'E text' could not append.

local window, ahead, partitions = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local VALUES = 10
local KEYS_PER_PARTITION = 4
local FINGERPRINT_BYTES = 16

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

local read_at
local function now()
  if not read_at then
    local time = redis.call('TIME')
    read_at = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return read_at
end

-- The partition at hand: keys, the last offset, the last seq of each subject, and what is to be written to the
-- heads when all of its commands are done.
local events, heads, users, marks, offset, seqs, changed

-- A head behind the log (a damaged or lost key) would give numbers a second time and overwrite what has them.
-- An entry without a readable offset proves nothing: whoever reads it parks it.
local function damage(asked)
  if not offset then return 'E the last offset is not a number' end
  if offset > 0 and not asked then return end
  local entries = redis.pcall('XREVRANGE', events, '+', '-', 'COUNT', 1)
  if entries.err then return 'E ' .. entries.err end
  local fields = entries[1] and entries[1][2] or {}
  for at = 1, #fields, 2 do
    local found = fields[at] == 'n' and tonumber(fields[at + 1])
    if found and found > offset then
      return 'E the last offset is ' .. text(offset) .. ', the last entry has ' .. text(found)
    end
  end
end

-- Appends the event of the command at ARGV[at]. Returns its seq and entry, or nil and why not.
local function append(at)
  local subject, version, kind, id, payload, trace, body = unpack(ARGV, at + 1, at + 7)
  local head = seqs[subject]
  if not head then return nil, 'the head of ' .. subject .. ' is not a number' end
  local seq, next_offset = head + 1, offset + 1
  local checksum = bit.tohex(bit.bxor(tonumber(body), low32(seq), bit.rol(low32(next_offset), 16)))
  local seq_text = text(seq)
  local entry = redis.pcall('XADD', events, '*', 'v', version, 't', kind, 's', subject, 'q', seq_text,
    'n', text(next_offset), 'i', id, 'p', payload, 'r', trace, 'c', checksum)
  if type(entry) == 'table' then return nil, entry.err end
  seqs[subject], offset = seq, next_offset
  changed[#changed + 1] = subject
  changed[#changed + 1] = seq_text
  return seq_text, entry
end

local function answer(seq, entry)
  if seq then return 'N ' .. seq .. ' ' .. entry end
  return 'E ' .. entry
end

-- What is stored of each send that is made once, read in one command.
local records, next_record = {}, KEYS_PER_PARTITION * partitions + 1
if next_record <= #KEYS then
  local stored = redis.call('MGET', unpack(KEYS, next_record))
  for nth, receipt in ipairs(stored) do records[KEYS[next_record + nth - 1]] = receipt end
end

local function append_once(at, record, keep, is_late)
  local fingerprint, found = ARGV[at + 8], records[record]
  if found then
    if string.sub(found, 1, FINGERPRINT_BYTES) ~= fingerprint then return 'C' end
    return 'R ' .. string.sub(found, FINGERPRINT_BYTES + 1)
  end
  if is_late then return 'W' end
  local seq, entry = append(at)
  if seq then
    local receipt = fingerprint .. ARGV[at + 4] .. ' ' .. seq .. ' ' .. entry
    redis.call('SET', record, receipt, 'PX', keep)
    records[record] = receipt
  end
  return answer(seq, entry)
end

local commands = {
  plain = function(at)
    return answer(append(at))
  end,

  header = function(at, record)
    return append_once(at, record, ARGV[1], false)
  end,

  id = function(at, record)
    local ms = tonumber(ARGV[at + 9])
    -- An id taken now may lie `ahead` of now, so it stays inside the window for window + ahead; as much
    -- again is for a clock that is set back.
    return append_once(at, record, text(window + 2 * ahead), ms < now() - window or ms > now() + ahead)
  end,

  register = function(at)
    local name, password_hash = ARGV[at + 8], ARGV[at + 9]
    local found = redis.pcall('HEXISTS', users, name)
    if type(found) == 'table' then return 'E ' .. found.err end
    if found == 1 then return 'T' end
    local seq, entry = append(at)
    if seq then redis.call('HSET', users, name, password_hash) end
    return answer(seq, entry)
  end,

  mark = function(at)
    local pair, mark = ARGV[at + 8], ARGV[at + 9]
    local stored = redis.pcall('HGET', marks, pair)
    if type(stored) == 'table' then return 'E ' .. stored.err end
    local highest = number_or_0(stored)
    if not highest then return 'E the mark of ' .. pair .. ' is not a number' end
    if tonumber(mark) <= highest then return 'U' end
    local seq, entry = append(at)
    if seq then redis.call('HSET', marks, pair, mark) end
    return answer(seq, entry)
  end,
}

local HAS_RECORD = { header = true, id = true }

-- The last offset and the last seq of every subject that the commands name; or why not.
local function read_heads(first, last)
  local subjects = {}
  for at = first, last, VALUES do subjects[#subjects + 1] = ARGV[at + 1] end
  local stored = redis.pcall('HMGET', heads, '#', unpack(subjects))
  if stored.err then return 'E ' .. stored.err end
  offset, seqs, changed = number_or_0(stored[1]), {}, {}
  for nth, subject in ipairs(subjects) do seqs[subject] = number_or_0(stored[nth + 1]) end
end

local answers = {}
local first = 6
for partition = 1, partitions do
  local key = KEYS_PER_PARTITION * (partition - 1) + 1
  events, heads, users, marks = unpack(KEYS, key, key + KEYS_PER_PARTITION - 1)
  local last = first + VALUES * ARGV[first - 2] - 1
  local damaged = read_heads(first, last) or damage(ARGV[first - 1] == '1')
  for at = first, last, VALUES do
    local record
    if HAS_RECORD[ARGV[at]] then
      record, next_record = KEYS[next_record], next_record + 1
    end
    answers[#answers + 1] = damaged or commands[ARGV[at]](at, record)
  end
  if not damaged and #changed > 0 then redis.call('HSET', heads, '#', text(offset), unpack(changed)) end
  first = last + 3
end
return answers
