-- Notifications, newest first.
-- KEYS: unread, read, rows
-- ARGV: run id, 'unread' or 'all', limit, an order to begin below or ''
-- Answers the unread ones' number, then order, whether it is read and row of each.
local top = ARGV[4] == '' and '+' or '(' .. ARGV[4]
local function newest(key)
  return redis.call('ZREVRANGEBYLEX', key, top, '-', 'LIMIT', 0, ARGV[3])
end
local unread = newest(KEYS[1])
local read = ARGV[2] == 'all' and newest(KEYS[2]) or {}
local answer = {redis.call('ZCARD', KEYS[1])}
local u, r = 1, 1
for _ = 1, tonumber(ARGV[3]) do
  local order, is_read
  if unread[u] and (not read[r] or unread[u] > read[r]) then
    order, is_read, u = unread[u], 0, u + 1
  elseif read[r] then
    order, is_read, r = read[r], 1, r + 1
  else
    break
  end
  answer[#answer + 1] = order
  answer[#answer + 1] = is_read
  answer[#answer + 1] = redis.call('HGET', KEYS[3], order) or ''
end
return answer
