-- Makes a reservation's charge what its replica says: after progress, a move, or an outage.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation, endpoint, queued tokens
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id, endpoint, queued = ARGV[1], ARGV[2], tonumber(ARGV[3])
local drops = drops_of(dropped, endpoint)
local known = redis.call('HGET', reservations, id)
if known then
  local before, drops_then, where = parse(known)
  if where == endpoint then
    if drops_then ~= drops then
      return 0
    end
    redis.call('HINCRBY', load, endpoint, queued - before)
    redis.call('HSET', reservations, id, record_of(queued, drops, endpoint))
    return 1
  end
  take_back(load, dropped, known)
end
redis.call('HINCRBY', load, endpoint, IN_FLIGHT + queued)
redis.call('HSET', reservations, id, record_of(queued, drops, endpoint))
return 1
