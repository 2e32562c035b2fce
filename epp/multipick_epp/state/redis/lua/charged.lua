-- Names the fields of the loads and of what is charged: see common.lua.
-- KEYS: load, then the charges of each picker
-- ARGV: fields that there are at most
local named, fields = {[TABLE] = true}, {}
for i = 1, #KEYS do
  make_sound(KEYS[i], tonumber(ARGV[1]))
  for _, field in ipairs(redis.call('HKEYS', KEYS[i])) do
    if #field > LONGEST then
      redis.call('HDEL', KEYS[i], field)
    elseif not named[field] then
      named[field] = true
      fields[#fields + 1] = field
    end
  end
end
return fields
