-- Appends an event to a channel's history and publishes it, as one step.
-- KEYS: meta, stream, [the idempotency key]
-- ARGV: run id, an epoch to begin with, the event, entries and milliseconds to keep,
--       the pub/sub channel ('' for none), PUBLISH or SPUBLISH, milliseconds to keep the answer,
--       what is said of the trace (mostly '')
if KEYS[3] then
  local first = redis.call('GET', KEYS[3])
  if first then
    -- Whoever waits for replicas waits for their having what is written now.
    redis.call('SET', KEYS[3], first, 'KEEPTTL')
    return {1, first}
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r')
local epoch, offset = meta[1], tonumber(meta[2] or '0') + 1
-- An epoch lives as long as its meta and the process that it began under: after a restart or a
-- failover, what was acknowledged last may be missing, and its offsets must not come again.
if not epoch or meta[3] ~= ARGV[1] then
  epoch = ARGV[2]
end
local number = string.format('%.0f', offset)
local expire = string.format('%.0f', now + ARGV[5])
redis.call('HSET', KEYS[1], 'e', epoch, 'o', number, 'r', ARGV[1], 'n', ARGV[4], 'x', expire)
if not meta[1] then
  redis.call('DEL', KEYS[2])
end
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], number .. '-' .. expire, 'd', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[5] + 3600000)
if offset % 16 == 0 then
  -- What is too old goes: more than comes, so that little is left behind.
  local last
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 32)) do
    local at, till = string.match(entry[1], '(%d+)-(%d+)')
    if tonumber(till) > now then
      break
    end
    last = at
  end
  if last then
    redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', last + 1))
  end
end
if ARGV[6] ~= '' then
  redis.call(ARGV[7], ARGV[6], '@' .. number .. ':' .. epoch .. ':' .. ARGV[9] .. ARGV[3])
end
local answer = number .. ':' .. epoch
if KEYS[3] then
  redis.call('SET', KEYS[3], answer, 'PX', ARGV[8])
end
return {0, answer}
