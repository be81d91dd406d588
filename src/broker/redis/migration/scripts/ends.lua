-- When a key goes, in milliseconds since 1970; -1: never. Redis 6.2 has no PEXPIRETIME.
local function ends(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) ~= 'number' then
    local time = redis.call('TIME')
    at = redis.call('PTTL', key)
    if at >= 0 then
      at = at + time[1] * 1000 + math.floor(time[2] / 1000)
    end
  end
  return string.format('%.0f', at)
end

