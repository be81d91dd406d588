-- Puts a channel's history in place, or goes on with it.
-- KEYS: meta, stream
-- ARGV: run id, epoch ('' to go on), offset, entries to keep, when it is forgotten, when the stream ends,
--       then id and event of each
if ARGV[2] ~= '' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'o', ARGV[3], 'r', ARGV[1], 'n', ARGV[4], 'x', ARGV[5])
  redis.call('PEXPIREAT', KEYS[1], ARGV[5])
end
for i = 7, #ARGV, 2 do
  redis.call('XADD', KEYS[2], ARGV[i], 'd', ARGV[i + 1])
end
if #ARGV > 6 then
  redis.call('PEXPIREAT', KEYS[2], ARGV[6])
end
return 1
