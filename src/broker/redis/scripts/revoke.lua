-- Remembers a revocation: the later end and the later moment count. Forgets a few that are past their time.
-- KEYS: list, ends, rows
-- ARGV: run id, name, the moment and the end in milliseconds, as twenty digits each; the end as a score
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 10)) do
  redis.call('ZREM', KEYS[1], name .. (redis.call('HGET', KEYS[3], name) or ''))
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
end
local row = redis.call('HGET', KEYS[3], ARGV[2])
local before, till = ARGV[3], ARGV[4]
local score = ARGV[5]
if row then
  local old_before, old_till = string.sub(row, 1, 20), string.sub(row, 21, 40)
  if old_before > before then
    before = old_before
  end
  if old_till > till then
    till = old_till
    score = redis.call('ZSCORE', KEYS[2], ARGV[2]) or score
  end
  redis.call('ZREM', KEYS[1], ARGV[2] .. row)
end
redis.call('HSET', KEYS[3], ARGV[2], before .. till)
redis.call('ZADD', KEYS[1], 0, ARGV[2] .. before .. till)
redis.call('ZADD', KEYS[2], score, ARGV[2])
return 1
