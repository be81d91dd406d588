-- Sets a key if its value still begins as expected.
-- KEYS: the key
-- ARGV: run id, what it must begin with ('' if it must be absent), the new value ('' to delete it),
--       milliseconds to keep it ('' for good)
local value = redis.call('GET', KEYS[1])
if ARGV[2] == '' then
  if value then
    return 0
  end
elseif not value or string.sub(value, 1, #ARGV[2]) ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[4] == '' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
