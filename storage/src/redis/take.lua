#!lua
-- Takes as many permits of a subject as are free, at most `wanted`, by the generic cell rate algorithm
-- (`shared::rate` has it in Rust). One string is kept: when all permits are free again, in µs of Redis' clock. It
-- ends by itself at that time.
--
-- KEYS: the subject's. ARGV: µs from one permit to the next, burst, wanted.
-- Answers: granted, still free, µs until the next one is free (0 while there is one).

local key = KEYS[1]
local spacing, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

-- All numbers are whole and far below 2^53, so Lua's doubles are exact.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = spacing * burst

-- Beyond the window is what a clock that was set back, or another rate before, has left.
local full_at = tonumber(redis.call('GET', key) or now) or now
full_at = math.min(math.max(full_at, now), now + window)

local free = math.floor((now + window - full_at) / spacing)
local granted = math.min(free, wanted)
if granted > 0 then
  full_at = full_at + granted * spacing
  redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
end

local remaining = free - granted
local wait = 0
if remaining == 0 then wait = full_at + spacing - window - now end
return { granted, remaining, wait }
