-- A user's read or unread notifications in their order, as many as fit.
-- KEYS: unread or read, rows
-- ARGV: run id, the order after which or '', how many, bytes
-- Answers order and row of each.
local answer, bytes = {}, 0
local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local orders = redis.call('ZRANGEBYLEX', KEYS[1], after, '+', 'LIMIT', 0, ARGV[3])
for _, order in ipairs(orders) do
  local row = redis.call('HGET', KEYS[2], order) or ''
  answer[#answer + 1] = order
  answer[#answer + 1] = row
  bytes = bytes + #row
  if bytes >= tonumber(ARGV[4]) then
    break
  end
end
return answer
