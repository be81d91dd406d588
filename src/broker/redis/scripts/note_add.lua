-- Adds a notification.
-- KEYS: unread, read, rows, [the idempotency key]
-- ARGV: run id, 16 random digits, the row, how many there may be, milliseconds to keep the answer
-- Answers: whether it had been added, its order, whether it is read, its row, the unread ones.
if KEYS[4] then
  local first = redis.call('GET', KEYS[4])
  if first then
    -- Whoever waits for replicas waits for their having what is written now.
    redis.call('SET', KEYS[4], first, 'KEEPTTL')
    local order, row = string.match(first, '^(%x+) (.*)$')
    local now = redis.call('HGET', KEYS[3], order)
    local is_read = redis.call('ZSCORE', KEYS[2], order) and 1 or 0
    return {1, order, is_read, now or row, redis.call('ZCARD', KEYS[1])}
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Milliseconds and a counter of twelve bits, in digits that sort as text; a number holds no more than 53 bits.
local function digits(ms, count)
  return string.format('%06x%06x%03x', math.floor(ms / 16777216), ms % 16777216, count)
end
local function number(text, from, to)
  return tonumber(string.sub(text, from, to), 16)
end
local order = digits(now, 0)
for i = 1, 2 do
  local last = redis.call('ZREVRANGE', KEYS[i], 0, 0)[1]
  if last and last >= order then
    local ms, count = number(last, 1, 6) * 16777216 + number(last, 7, 12), number(last, 13, 15) + 1
    order = digits(ms + math.floor(count / 4096), count % 4096)
  end
end
local row = ARGV[2] .. string.format('%.0f', now) .. ' ' .. ARGV[3]
redis.call('ZADD', KEYS[1], 0, order)
redis.call('HSET', KEYS[3], order, row)
local excess = redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2]) - ARGV[4]
for _ = 1, math.min(excess, 1000) do
  local gone = redis.call('ZPOPMIN', KEYS[2])[1] or redis.call('ZPOPMIN', KEYS[1])[1]
  redis.call('HDEL', KEYS[3], gone)
end
if KEYS[4] then
  redis.call('SET', KEYS[4], order .. ' ' .. row, 'PX', ARGV[5])
end
return {0, order, 0, row, redis.call('ZCARD', KEYS[1])}
