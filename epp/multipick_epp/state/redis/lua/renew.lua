-- Renews a picker's lease, after it made sure of the hashes that the picker uses.
-- KEYS: leases, generation of the store's data, load, the picker's charges, routed
-- ARGV: this picker, a stamp that its lease did not have before, the name of a new generation if there is none,
--   pickers that a pool has at most, fields of the other hashes at most, 1 where its last renewal found no other lease
-- A picker that finds itself alone twice is told so by its stamp: until it renews its lease again, it need not ask before
-- it charges, since who comes sees that stamp, and waits.
-- Returns the generation, and each lease's name and stamp.
local leases, generation, load, charges, routed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
make_sound(leases, tonumber(ARGV[4]))
for i = 3, 5 do
  make_sound(KEYS[i], tonumber(ARGV[5]))
end
keep_as_table(load)
keep_as_table(charges)
redis.call('HSET', leases, ARGV[1], ARGV[2])
if ARGV[6] == '1' and redis.call('HLEN', leases) == 1 then
  redis.call('HSET', leases, ARGV[1], ARGV[2] .. ' alone')
end
redis.call('SET', generation, ARGV[3], 'NX')
local name = redis.pcall('GET', generation)
if type(name) == 'table' or #name > LONGEST then  -- no string, or none of ours
  redis.call('SET', generation, ARGV[3])
  name = ARGV[3]
end
return {name, sound_fields(leases)}
