-- Takes back all that a dead replica charged, and its lease.
-- KEYS: load, leases, the dead replica's charges
-- ARGV: the dead replica, its lease as the caller saw it for too long, fields that there are at most
-- Returns how many requests it had in flight; nothing is done where the lease is another by now.
local load, leases, charges = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HGET', leases, ARGV[1]) ~= ARGV[2] then
  return 0
end
make_sound(charges, tonumber(ARGV[3]))
local reaped = 0
local fields = redis.call('HGETALL', charges)
for i = 1, #fields, 2 do
  local figure = figure_of(fields[i + 1])
  if figure and figure > 0 then
    add(load, fields[i], -figure)
    if string.sub(fields[i], -#CONTEXTS) ~= CONTEXTS then
      reaped = reaped + math.floor(figure / IN_FLIGHT)
    end
  end
end
redis.call('UNLINK', charges)
redis.call('HDEL', leases, ARGV[1])
return reaped
