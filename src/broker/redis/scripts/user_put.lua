-- Creates or changes a user; a wallet stays pending until its own key points here (users.rs).
-- KEYS: the user
-- ARGV: run id, milliseconds since 1970, what: 'change', 'pend' or 'settle', then names and values
-- Answers created, wallet, nickname, pending wallet, pending nickname, after it; and whether it was done.
local what = ARGV[3]
local pending = redis.call('HGET', KEYS[1], 'p')
local given = {}
for i = 4, #ARGV, 2 do
  given[ARGV[i]] = ARGV[i + 1]
end
local done = 1
if what == 'settle' then
  if pending == given.p then
    redis.call('HSET', KEYS[1], 'w', pending)
    local nickname = redis.call('HGET', KEYS[1], 'q')
    if nickname then
      redis.call('HSET', KEYS[1], 'n', nickname)
    end
    redis.call('HDEL', KEYS[1], 'p', 'q')
  else
    done = 0
  end
elseif what == 'drop' then
  if pending == given.p then
    redis.call('HDEL', KEYS[1], 'p', 'q')
  end
elseif pending and pending ~= given.p then
  done = 0
else
  redis.call('HSETNX', KEYS[1], 'c', ARGV[2])
  redis.call('HDEL', KEYS[1], 'q')
  for name, value in pairs(given) do
    redis.call('HSET', KEYS[1], name, value)
  end
end
local user = redis.call('HMGET', KEYS[1], 'c', 'w', 'n', 'p', 'q')
return {user[1], user[2], user[3], user[4], user[5], done}
