-- Takes one from each of some buckets if each has one, else from none (src/budget.rs has the algorithm).
-- KEYS: the buckets, each holding when it is full, in microseconds since 1970
-- ARGV: run id; then of each bucket: microseconds until one more is there, microseconds that an empty one
--       takes to be full, 1 if one is taken or 0 if it only has to have one
-- Answers 0, or in how many microseconds each has one.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wait, full = 0, {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local at = tonumber(redis.call('GET', key) or now) or now
  -- Nobody is emptier than empty, whatever the rate was when it was spent.
  full[i] = math.min(math.max(at, now), now + burst) + interval
  wait = math.max(wait, full[i] - now - burst)
end
if wait > 0 then
  return math.ceil(wait)
end
for i, key in ipairs(KEYS) do
  if ARGV[3 * i + 1] == '1' then
    local left = math.ceil((full[i] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', full[i]), 'PX', string.format('%.0f', left))
  end
end
return 0
