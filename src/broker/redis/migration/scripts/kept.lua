-- A value, and when it goes (ends.lua).
-- KEYS: the key
local value = redis.call('GET', KEYS[1])
if not value then
  return {}
end
return {value, ends(KEYS[1])}
