-- Puts notifications in place.
-- KEYS: unread, read, rows
-- ARGV: run id, then order, 1 if it is read, and row of each
for i = 2, #ARGV, 3 do
  local to, other = KEYS[1], KEYS[2]
  if ARGV[i + 1] == '1' then
    to, other = KEYS[2], KEYS[1]
  end
  redis.call('ZADD', to, 0, ARGV[i])
  redis.call('ZREM', other, ARGV[i])
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
end
return 1
