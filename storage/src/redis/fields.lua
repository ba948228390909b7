-- The beginning of every script that reads what Redis answers as name, value, name, value, …: entries of a stream, and
-- what XINFO tells.
local function fields(flat)
  local map = {}
  for at = 1, #flat, 2 do map[flat[at]] = flat[at + 1] end
  return map
end

-- Of an entry, from its header; nothing if that is not readable.
local function offset_of(entry)
  local header = fields(entry[2]).e or ''
  return tonumber(string.match(header, '^%S+ %S+ %S+ %S+ %S+ %d+ (%d+) '))
end

