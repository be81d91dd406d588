-- Tells that users have left a channel on a node: those that are named, or all.
-- Answers how many of them are on no node any more.
-- KEYS: users, nodes, the beginning of the names of the nodes' sets
-- ARGV: run id, node, 'all' or 'these', users..
local set = KEYS[3] .. ARGV[2]
local leaving = {}
if ARGV[3] == 'all' then
  leaving = redis.call('SMEMBERS', set)
else
  for i = 4, #ARGV do
    leaving[#leaving + 1] = ARGV[i]
  end
end
local nodes = redis.call('ZRANGE', KEYS[2], 0, -1)
local gone = 0
for _, user in ipairs(leaving) do
  if redis.call('SREM', set, user) == 1 then
    local is_elsewhere = false
    for _, node in ipairs(nodes) do
      if node ~= ARGV[2] and redis.call('SISMEMBER', KEYS[3] .. node, user) == 1 then
        is_elsewhere = true
        break
      end
    end
    if not is_elsewhere then
      gone = gone + redis.call('ZREM', KEYS[1], user)
    end
  end
end
if redis.call('EXISTS', set) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return gone
