-- How many members the sets of an endpoint's caches have, as of which entry of the log.
-- KEYS: log; then the sets
-- Returns the newest entry of the log, 0-0 where there is none; the number of each set's members, -1 where that can't be
-- told: it is no set, or we may not ask.
local found = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local newest = not found.err and found[1]
local reply = {newest and newest[1] or '0-0'}
for i = 2, #KEYS do
  local members = redis.pcall('SCARD', KEYS[i])
  reply[i] = type(members) == 'number' and members or -1
end
return reply
