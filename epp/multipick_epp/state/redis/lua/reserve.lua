-- Charges the cheapest candidate of one request.
-- KEYS: load, this replica's reservations, dropped
-- ARGV: reservation; then of each candidate: endpoint, new tokens, unseen queued tokens, unseen in flight
-- Returns the winner's place, from 0, then queued tokens and in flight of each candidate before the charge.
local load, reservations, dropped = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
local count = (#ARGV - 1) / 4
local winner = nil

local known = redis.call('HGET', reservations, id)
if known then
  local _, _, endpoint = parse(known)
  for i = 1, count do
    if ARGV[4 * i - 2] == endpoint then
      winner = i
      break
    end
  end
  if not winner then
    take_back(load, dropped, known)
  end
end

local fields = {}
for i = 1, count do
  local endpoint = ARGV[4 * i - 2]
  fields[2 * i - 1] = 'q' .. endpoint
  fields[2 * i] = 'n' .. endpoint
end
local figures = redis.call('HMGET', load, unpack(fields))
local reply = {0}
local least = math.huge
local cheapest = 1
for i = 1, count do
  local queued = tonumber(figures[2 * i - 1] or 0)
  local in_flight = tonumber(figures[2 * i] or 0)
  reply[2 * i] = queued
  reply[2 * i + 1] = in_flight
  local score = (queued + ARGV[4 * i - 1] + ARGV[4 * i]) * (in_flight + ARGV[4 * i + 1] + 1)
  if score < least then
    least = score
    cheapest = i
  end
end
if not winner then
  winner = cheapest
  charge(load, dropped, reservations, id, ARGV[4 * winner - 2], tonumber(ARGV[4 * winner - 1]))
end
reply[1] = winner - 1
return reply
