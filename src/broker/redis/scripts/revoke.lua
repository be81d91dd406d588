-- Remembers a revocation: the later end and the later moment count.
-- KEYS: names, ends, rows
-- ARGV: run id, name, the moment and the end in milliseconds, as twenty digits each; the end as a score
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
end
redis.call('HSET', KEYS[3], ARGV[2], before .. till)
redis.call('ZADD', KEYS[1], 0, ARGV[2])
redis.call('ZADD', KEYS[2], score, ARGV[2])
return 1
