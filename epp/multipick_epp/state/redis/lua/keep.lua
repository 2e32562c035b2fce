-- Keeps what is known of an endpoint alive.
-- KEYS: endpoints, the endpoint's fence, its notes; then the sets of all its caches
-- ARGV: endpoint, seconds after which it expires
-- Returns 1, or 0 where something of it was lost, evicted or overwritten: only `replace` makes it whole again.
local endpoints, fence, notes = KEYS[1], KEYS[2], KEYS[3]
caches_of(fence)  -- what is not as we write it goes
if not epoch_of(anew('HGET', fence, 'epoch')) then
  return 0
end
anew('SADD', endpoints, ARGV[1])
local intact = anew('HEXISTS', notes, '')
redis.call('EXPIRE', fence, ARGV[2])
redis.call('EXPIRE', notes, ARGV[2])
for i = 4, #KEYS do
  local removed = redis.pcall('SREM', KEYS[i], 'no member')  -- a test of the type
  if type(removed) == 'table' or redis.call('EXPIRE', KEYS[i], ARGV[2]) == 0 then
    intact = 0
  end
end
return intact
