-- Events of a stream, one after the other, as many as fit.
-- KEYS: stream
-- ARGV: run id, the first offset, the last one, bytes
local answer, bytes, from = {}, 0, ARGV[2]
while bytes < tonumber(ARGV[4]) do
  local entries = redis.call('XRANGE', KEYS[1], from, ARGV[3], 'COUNT', 16)
  for _, entry in ipairs(entries) do
    answer[#answer + 1] = entry[2][2]
    bytes = bytes + #entry[2][2] + 16
    from = '(' .. entry[1]
  end
  if #entries < 16 then
    break
  end
end
return answer
