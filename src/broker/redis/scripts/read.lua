-- The position of a channel, and events of its history.
-- KEYS: meta, stream
-- ARGV: run id, an epoch to begin with, milliseconds that a channel without events is remembered,
--       what: 'position'; 'recover', an epoch, an offset and how many there may be since;
--       'history', an offset or '' and a limit
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r', 'n')
local epoch, offset = meta[1], tonumber(meta[2] or '0')
-- Protected calls: a server that is out of memory still answers readers.
if not epoch then
  epoch = ARGV[2]
  redis.pcall('HSET', KEYS[1], 'e', epoch, 'o', '0', 'r', ARGV[1], 'n', '1')
  redis.pcall('DEL', KEYS[2])
elseif meta[3] ~= ARGV[1] then
  epoch = ARGV[2]
  redis.pcall('HSET', KEYS[1], 'e', epoch, 'r', ARGV[1])
end
if offset == 0 then
  redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
end
local entries, was_cut = {}, 0
if ARGV[4] == 'recover' then
  local since = tonumber(ARGV[6])
  if ARGV[5] ~= epoch or since >= offset then
    entries = {}
  elseif offset - since > tonumber(ARGV[7]) then
    was_cut = 1
  elseif offset - since <= tonumber(meta[4]) then
    entries = redis.call('XRANGE', KEYS[2], string.format('%.0f', since + 1), '+')
  end
elseif ARGV[4] == 'history' and offset > 0 then
  local before = ARGV[5] == '' and '+' or '(' .. ARGV[5] .. '-0'
  entries = redis.call('XREVRANGE', KEYS[2], before, '-', 'COUNT', ARGV[6])
end
return {epoch, string.format('%.0f', offset), meta[4] or '1', string.format('%.0f', now), was_cut, entries}
