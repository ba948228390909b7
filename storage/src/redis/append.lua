-- Appends events to one partition or more. Takes many commands, answers each, in their order. A command is done
-- as a whole or not at all: everything that can fail is asked before its first write, and that first write is
-- the XADD, after which only HSET and SET follow, on keys already known to be of the right type. Whatever fails
-- all the same fails the call, and its outcome is unknown.
--
-- The line before all of it (`#!lua`) makes Redis refuse the whole call before it starts when memory is full, the disk
-- fails or the server is a replica.
--
-- One call is the cheapest: what is asked and written once per partition and not once per command (heads,
-- records) is half of the work. On a cluster a call takes the partitions of one slot: one.
--
-- KEYS: per partition events, heads; then of each command but a plain one what it keeps something under, in the
-- order of commands.
-- ARGV: window ms, how far ahead an id may be in ms, how many partitions; per partition: how many commands,
-- whether to look for damage (1 or 0); then seven values per command:
--   what, subject, header up to the trace, payload, body checksum, first, second
--   what        key       first               second
--   plain       -         -                   -
--   header      record    fingerprint id      -
--   id          record    fingerprint id      ms inside the id
--   register    users     name                password hash
--   mark        marks     reader:peer         seq
-- The stored header is that header and seq, offset, checksum; a record is fingerprint, id, seq, entry.
--
-- Answers: 'N seq entry' new, 'R id seq entry' replayed, 'U' unchanged, 'T' taken, 'C' conflict,
-- 'W' outside the window, 'E text' could not append.

-- Locals are faster than globals, and this runs for every send.
local ARGV, KEYS, unpack, tonumber, call, pcall = ARGV, KEYS, unpack, tonumber, redis.call, redis.pcall
local format, sub, find = string.format, string.sub, string.find
local bxor, rol, tohex = bit.bxor, bit.rol, bit.tohex

local window, ahead, partitions = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local VALUES = 7
local KEYS_PER_PARTITION = 2
local FINGERPRINT_BYTES = 16

-- Lua's numbers are doubles: exact to 2^53. Its own conversion to text keeps 14 digits only.
local function text(number)
  return format('%d', number)
end

-- A number that is there but cannot be read must not become a new beginning: nothing.
local function number_or_0(stored)
  if not stored then return 0 end
  return find(stored, '^%d+$') and tonumber(stored)
end

local read_at
local function now()
  if not read_at then
    local time = call('TIME')
    read_at = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return read_at
end

-- The partition at hand: keys, the last offset, the last seq of each subject, and what is to be written to the
-- heads when all of its commands are done.
local events, heads, offset, seqs, changed

-- A head behind the log (a damaged or lost key) would give numbers a second time and overwrite what has them.
-- An entry without a readable offset proves nothing: whoever reads it parks it.
local function damage(asked)
  if not offset then return 'E the last offset is not a number' end
  if offset > 0 and not asked then return end
  local entries = pcall('XREVRANGE', events, '+', '-', 'COUNT', 1)
  if entries.err then return 'E ' .. entries.err end
  local found = entries[1] and offset_of(entries[1])
  if found and found > offset then
    return 'E the last offset is ' .. text(offset) .. ', the last entry has ' .. text(found)
  end
end

-- Appends the event of the command at ARGV[at]. Returns its seq and entry, or nil and why not.
local function append(at)
  local subject, header, payload, body = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local head = seqs[subject]
  if not head then return nil, 'the head of ' .. subject .. ' is not a number' end
  local seq, next_offset = head + 1, offset + 1
  -- Of numbers, and of their texts, these take the lower 32 bits: exact to 2^51.
  local checksum = tohex(bxor(body, seq, rol(next_offset, 16)))
  local seq_text = text(seq)
  local numbered = header .. ' ' .. seq_text .. ' ' .. text(next_offset) .. ' ' .. checksum
  -- A stream that had entries and is gone is not begun anew: nobody would see that it had any.
  local entry = offset == 0 and pcall('XADD', events, '*', 'e', numbered, 'p', payload)
    or pcall('XADD', events, 'NOMKSTREAM', '*', 'e', numbered, 'p', payload)
  if not entry then return nil, 'the stream is gone, ' .. text(offset) .. ' events were in it' end
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

-- What is stored of each send that is made once, read in one command; nothing of what is not a string.
local before_kept = KEYS_PER_PARTITION * partitions
local stored = #KEYS > before_kept and call('MGET', unpack(KEYS, before_kept + 1)) or {}
-- What this call stored.
local written = {}

local function append_once(at, record, found, keep, is_late)
  local receipt = ARGV[at + 5]
  found = found or written[record]
  if found then
    if sub(found, 1, FINGERPRINT_BYTES) ~= sub(receipt, 1, FINGERPRINT_BYTES) then return 'C' end
    return 'R ' .. sub(found, FINGERPRINT_BYTES + 1)
  end
  if is_late then return 'W' end
  local seq, entry = append(at)
  if seq then
    receipt = receipt .. ' ' .. seq .. ' ' .. entry
    call('SET', record, receipt, 'PX', keep)
    written[record] = receipt
  end
  return answer(seq, entry)
end

local commands = {
  plain = function(at)
    return answer(append(at))
  end,

  header = function(at, record, found)
    return append_once(at, record, found, ARGV[1], false)
  end,

  id = function(at, record, found)
    local ms = tonumber(ARGV[at + 6])
    -- An id taken now may lie `ahead` of now, so it stays inside the window for window + ahead; as much
    -- again is for a clock that is set back.
    return append_once(at, record, found, text(window + 2 * ahead), ms < now() - window or ms > now() + ahead)
  end,

  register = function(at, users)
    local name, password_hash = ARGV[at + 5], ARGV[at + 6]
    local found = pcall('HEXISTS', users, name)
    if type(found) == 'table' then return 'E ' .. found.err end
    if found == 1 then return 'T' end
    local seq, entry = append(at)
    if seq then call('HSET', users, name, password_hash) end
    return answer(seq, entry)
  end,

  mark = function(at, marks)
    local pair, mark = ARGV[at + 5], ARGV[at + 6]
    local stored = pcall('HGET', marks, pair)
    if type(stored) == 'table' then return 'E ' .. stored.err end
    local highest = number_or_0(stored)
    if not highest then return 'E the mark of ' .. pair .. ' is not a number' end
    if tonumber(mark) <= highest then return 'U' end
    local seq, entry = append(at)
    if seq then call('HSET', marks, pair, mark) end
    return answer(seq, entry)
  end,
}

-- The last offset and the last seq of every subject that the commands name; or why not.
local function read_heads(first, last)
  local subjects = {}
  for at = first, last, VALUES do subjects[#subjects + 1] = ARGV[at + 1] end
  local stored = pcall('HMGET', heads, '#', unpack(subjects))
  if stored.err then return 'E ' .. stored.err end
  offset, seqs, changed = number_or_0(stored[1]), {}, {}
  for nth, subject in ipairs(subjects) do seqs[subject] = number_or_0(stored[nth + 1]) end
end

local answers = {}
local first, nth_kept = 6, 0
for partition = 1, partitions do
  local key = KEYS_PER_PARTITION * (partition - 1) + 1
  events, heads = KEYS[key], KEYS[key + 1]
  local last = first + VALUES * ARGV[first - 2] - 1
  local damaged = read_heads(first, last) or damage(ARGV[first - 1] == '1')
  for at = first, last, VALUES do
    local what, kept, found = ARGV[at], nil, nil
    if what ~= 'plain' then
      nth_kept = nth_kept + 1
      kept, found = KEYS[before_kept + nth_kept], stored[nth_kept]
    end
    answers[#answers + 1] = damaged or commands[what](at, kept, found)
  end
  if not damaged and #changed > 0 then call('HSET', heads, '#', text(offset), unpack(changed)) end
  first = last + 3
end
return answers
