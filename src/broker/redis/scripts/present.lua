-- Who is in a channel; or, for a node, whether what is known of it is right. Takes out first what lost
-- nodes left behind.
-- KEYS: users, nodes, the beginning of the names of the nodes' sets
-- ARGV: run id, limit, [a node that is still there, milliseconds that it holds]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] and redis.call('EXISTS', KEYS[3] .. ARGV[3]) == 1 then
  redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
  for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3] .. ARGV[3]}) do
    redis.call('PEXPIRE', key, ARGV[4] * 4)
  end
end
local lost = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
if #lost > 0 then
  redis.call('ZREM', KEYS[2], unpack(lost))
  local nodes = redis.call('ZRANGE', KEYS[2], 0, -1)
  for _, node in ipairs(lost) do
    for _, user in ipairs(redis.call('SMEMBERS', KEYS[3] .. node)) do
      local is_elsewhere = false
      for _, other in ipairs(nodes) do
        is_elsewhere = is_elsewhere or redis.call('SISMEMBER', KEYS[3] .. other, user) == 1
      end
      if not is_elsewhere then
        redis.call('ZREM', KEYS[1], user)
      end
    end
    redis.call('DEL', KEYS[3] .. node)
  end
end
if ARGV[3] then
  return redis.call('SCARD', KEYS[3] .. ARGV[3])
end
local users = {}
if ARGV[2] ~= '0' then
  users = redis.call('ZRANGEBYLEX', KEYS[1], '-', '+', 'LIMIT', 0, ARGV[2])
end
return {redis.call('ZCARD', KEYS[1]), users}
