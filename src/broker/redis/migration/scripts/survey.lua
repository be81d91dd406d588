-- Where a channel's history stands: its living events, without a hole up to the last one.
-- KEYS: meta, stream
-- ARGV: run id, an epoch to go on with if its own has ended, the time beyond which an event lives
-- Answers epoch, offset, entries to keep, when it is forgotten, then when each event ends, the last one's
-- first; an event ends with the ones after it at the latest.
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r', 'n')
if not meta[1] then
  return {}
end
-- As read.lua does it.
if meta[3] ~= ARGV[1] then
  meta[1] = ARGV[2]
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'r', ARGV[1])
end
local answer = {meta[1], meta[2] or '0', meta[4] or '1', ends(KEYS[1])}
local expected, latest, before = tonumber(meta[2] or '0'), math.huge, '+'
while expected > 0 do
  local entries = redis.call('XREVRANGE', KEYS[2], before, '-', 'COUNT', 100)
  for _, entry in ipairs(entries) do
    local at, till = string.match(entry[1], '(%d+)-(%d+)')
    latest = math.min(latest, tonumber(till))
    if tonumber(at) ~= expected or latest <= tonumber(ARGV[3]) then
      return answer
    end
    answer[#answer + 1] = string.format('%.0f', latest)
    expected, before = expected - 1, '(' .. entry[1]
  end
  if #entries < 100 then
    break
  end
end
return answer
