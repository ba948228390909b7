#!lua flags=allow-oom
-- The beginning of every script that compares ids of entries.
local function is_before(one, other)
  local ms, counter = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_counter = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(counter) < tonumber(other_counter)
end

