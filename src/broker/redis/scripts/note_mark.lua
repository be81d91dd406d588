-- Marks or deletes notifications.
-- KEYS: unread, read, rows, one of no meaning
-- ARGV: run id, what: 'read', 'unread' or 'delete', then order and random digits of each;
--       'read-all'; 'clear-read'
-- Answers how many changed, how many were found, the unread ones' number, and the places in the list
-- of those that changed.
local what = ARGV[2]
local changed, found, places = 0, 0, {}
if what == 'read-all' then
  changed = redis.call('ZCARD', KEYS[1])
  found = changed
  if changed > 0 then
    redis.call('ZUNIONSTORE', KEYS[2], 2, KEYS[1], KEYS[2])
    redis.call('DEL', KEYS[1])
  end
elseif what == 'clear-read' then
  for _, order in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    redis.call('HDEL', KEYS[3], order)
    changed = changed + 1
  end
  found = changed
  redis.call('DEL', KEYS[2])
else
  local from, to = KEYS[2], KEYS[1]
  if what == 'read' then
    from, to = KEYS[1], KEYS[2]
  end
  for i = 3, #ARGV, 2 do
    local order = ARGV[i]
    local row = redis.call('HGET', KEYS[3], order)
    if row and string.sub(row, 1, 16) == ARGV[i + 1] then
      found = found + 1
      if what == 'delete' then
        redis.call('ZREM', KEYS[1], order)
        redis.call('ZREM', KEYS[2], order)
        redis.call('HDEL', KEYS[3], order)
        changed = changed + 1
      elseif redis.call('ZREM', from, order) == 1 then
        redis.call('ZADD', to, 0, order)
        changed = changed + 1
        places[#places + 1] = (i - 3) / 2
      end
    end
  end
end
if changed == 0 then
  -- Whoever waits for replicas waits for their having what is written now: somebody may have been first, in vain.
  redis.call('SET', KEYS[4], '', 'PX', 1)
end
return {changed, found, redis.call('ZCARD', KEYS[1]), places}
