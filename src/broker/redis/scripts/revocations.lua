-- A page of revocations, after taking out some that are past their time.
-- KEYS: names, ends, rows
-- ARGV: run id, the name to begin after or '', limit
-- Answers the time, then name and row of each.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
end
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local answer = {string.format('%.0f', now)}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[3])) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('HGET', KEYS[3], name) or ''
end
return answer
