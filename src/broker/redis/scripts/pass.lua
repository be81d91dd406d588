-- Publishes an event without history once for its idempotency key.
-- KEYS: the idempotency key
-- ARGV: run id, the event, the pub/sub channel ('' for none), PUBLISH or SPUBLISH,
--       milliseconds to keep the answer, what is said of the trace (mostly '')
if redis.call('GET', KEYS[1]) then
  -- Whoever waits for replicas waits for their having what is written now.
  redis.call('SET', KEYS[1], '', 'KEEPTTL')
  return 1
end
redis.call('SET', KEYS[1], '', 'PX', ARGV[5])
if ARGV[3] ~= '' then
  redis.call(ARGV[4], ARGV[3], ARGV[6] .. ARGV[2])
end
return 0
