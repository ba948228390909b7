#!lua
-- Lets a login be tried, and counts it as failed until somebody deletes the key; or says how long it has to wait.
-- One string is kept: how many failed, and until when (ms of Redis' clock) the next one waits. It ends by itself.
--
-- KEYS: of the account and address. ARGV: failures that do not wait, first wait, longest wait, how long failures
-- are remembered; times in ms.
-- Answers: ms to wait, 0 for none.

local key = KEYS[1]
local free, shortest, longest, remembered = unpack(ARGV)
free, shortest, longest = tonumber(free), tonumber(shortest), tonumber(longest)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local failures, waits_until = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
failures, waits_until = tonumber(failures or 0), tonumber(waits_until or 0)
if waits_until > now then
  -- A clock that was set back makes nobody wait for longer than the longest.
  return math.min(waits_until - now, longest)
end

failures = failures + 1
waits_until = now
if failures >= free then
  waits_until = now + math.min(shortest * 2 ^ (failures - free), longest)
end
redis.call('SET', key, string.format('%.0f %.0f', failures, waits_until), 'PX', remembered)
return 0
