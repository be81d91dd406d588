-- Tells that users are in a channel on a node. Answers how many of them no node had there.
-- KEYS: users, nodes, the beginning of the names of the nodes' sets
-- ARGV: run id, node, milliseconds that it holds, users..
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local set = KEYS[3] .. ARGV[2]
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
local new = 0
for i = 4, #ARGV do
  redis.call('SADD', set, ARGV[i])
  new = new + redis.call('ZADD', KEYS[1], 0, ARGV[i])
end
-- Longer than a node is believed, so that what a lost one left is taken out by name.
for _, key in ipairs({KEYS[1], KEYS[2], set}) do
  redis.call('PEXPIRE', key, ARGV[3] * 4)
end
return new
