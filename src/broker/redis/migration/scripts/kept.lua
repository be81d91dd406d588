-- A value, and when it goes; -1: never.
-- KEYS: the key
local value = redis.call('GET', KEYS[1])
if not value then
  return {}
end
local ends = redis.pcall('PEXPIRETIME', KEYS[1])
if type(ends) ~= 'number' then
  local time = redis.call('TIME')
  ends = redis.call('PTTL', KEYS[1])
  if ends >= 0 then
    ends = ends + time[1] * 1000 + math.floor(time[2] / 1000)
  end
end
return {value, string.format('%.0f', ends)}
