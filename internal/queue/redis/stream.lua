-- A stream with a consumer group: the message stays in the stream and in the
-- group's list of pending entries until it is settled; the server counts its
-- deliveries. Only the times are in keys of our own.

local group = ARGV[1]

-- named turns the flat list of an XINFO answer into a table.
local function named(flat)
  local out = {}
  for i = 1, #flat, 2 do
    out[flat[i]] = flat[i + 1]
  end
  return out
end

-- millis is when an entry was added, by its ID; nil where the producer made
-- the ID of something else than the time (before the year 2000).
local function millis(id)
  local ms = tonumber(string.match(id, '^(%d+)'))
  return ms and ms > 946684800000 and ms
end

local function age(id)
  local ms = millis(id)
  return ms and math.max(0, now - ms) or -1
end

local function pending(id)
  return redis.call('XPENDING', source, group, id, id, 1)[1]
end

-- ours tells whether we hold an entry, also against others of the group that
-- claim it by XCLAIM. An entry that was trimmed away is in no list of pending
-- ones, and nobody else can get it: it stays with who works on it.
local function ours(id, token)
  local holder = owner(id, token)
  local entry = holder and pending(id)
  return holder and (not entry or entry[2] == holder), entry
end

local function settle(id, shared)
  redis.call('XACK', source, group, id)
  if not shared then
    redis.call('XDEL', source, id)
  end
  unlease(id)
end

-- receive(owner, n, visibility ms, token prefix, first number, most bytes)
local function receive(holder, n, visibility, prefix, first, most)
  reap(100)
  local out, size = {}, 0
  local function give(entry, attempt)
    local token = prefix .. (first + #out)
    lease(entry[1], token, holder, visibility)
    out[#out + 1] = {entry[1], token, attempt, age(entry[1]), entry[2]}
    for _, f in ipairs(entry[2]) do
      size = size + #f
    end
  end
  while #out < n and size < most do
    local id = redis.call('ZRANGE', again, 0, 0)[1]
    if not id then
      break
    end
    -- Nothing comes of an entry that was acknowledged or trimmed meanwhile.
    local entry = redis.call('XCLAIM', source, group, holder, 0, id)[1]
    if entry then
      give(entry, pending(id)[4])
    end
    redis.call('ZREM', again, id)
  end
  while #out < n and size < most do
    local got = redis.call('XREADGROUP', 'GROUP', group, holder, 'COUNT', 1, 'STREAMS', source, '>')
    if not got then
      break
    end
    give(got[1][2][1], 1)
  end
  return out
end

local function added()
  local s = named(redis.call('XINFO', 'STREAM', source))
  return s['entries-added'], s
end

local function look()
  reap(1000)
  return {(added() or 0) + count('returned'), soonest()}
end

local function stats()
  local total, s = added()
  if not total then
    return redis.error_reply('OLDSERVER streams need Redis 7.0 or Valkey: XINFO STREAM does not tell entries-added')
  end
  local g
  for _, x in ipairs(redis.call('XINFO', 'GROUPS', source)) do
    local m = named(x)
    if m['name'] == group then
      g = m
    end
  end
  if not g then
    return redis.error_reply('NOGROUP no such consumer group')
  end
  -- The lag may be nil, or count entries that were trimmed away; that there is
  -- a next entry is always known, and the length bounds it.
  local head = redis.call('XRANGE', source, '(' .. g['last-delivered-id'], '+', 'COUNT', 1)[1]
  local fresh, oldest = 0, -1
  if head then
    fresh = math.max(1, math.min(g['lag'] or s['length'] - g['pending'], s['length']))
    oldest = age(head[1])
  end
  for _, id in ipairs(redis.call('ZRANGE', again, 0, 99)) do
    oldest = math.max(oldest, age(id))
  end
  local over, up, back = ended(untils), ended(laters), redis.call('ZCARD', again)
  local waiting, later = over + back + up, redis.call('ZCARD', laters) - up
  return {
    fresh + waiting,
    later,
    -- Entries of others in the group, too; and ours that were trimmed away.
    math.max(g['pending'] - waiting - later, redis.call('ZCARD', untils) - over),
    redis.call('XLEN', dead),
    total,
    oldest,
  }
end

local function extend(id, token, visibility)
  local mine, entry = ours(id, token)
  if not mine then
    return 0
  end
  redis.call('ZADD', untils, now + visibility, id)
  -- The idle time starts again, for those who look at the group. Not of an
  -- entry that was trimmed: XCLAIM would drop it from the pending ones.
  if entry and redis.call('XRANGE', source, id, id, 'COUNT', 1)[1] then
    redis.call('XCLAIM', source, group, entry[2], 0, id, 'JUSTID')
  end
  return 1
end

local function ack(id, token, shared)
  if not ours(id, token) then
    return 0
  end
  settle(id, shared)
  return 1
end

local function nack(id, token, delay)
  if not ours(id, token) then
    return 0
  end
  if delay > 0 then
    redis.call('ZADD', laters, now + delay, id)
  else
    due(id)
  end
  unlease(id)
  return 1
end

-- bury(id, token, reason, shared, name of the body's field, body)
local function bury(id, token, why, shared, field, body)
  local mine, entry = ours(id, token)
  if not mine then
    return 0
  end
  local found = redis.call('XRANGE', source, id, id, 'COUNT', 1)[1]
  local fields = found and found[2] or {field, body}
  if #fields > 4000 then
    return redis.error_reply('TOOMANY an entry of more than 2000 fields cannot be set aside')
  end
  for _, f in ipairs({'muster-reason', why, 'muster-id', id, 'muster-attempts', entry and entry[4] or 1}) do
    fields[#fields + 1] = f
  end
  redis.call('XADD', dead, '*', unpack(fields))
  settle(id, shared)
  return 1
end

-- adopt makes due what others of the group were given, or what we have lost the
-- keys of, once it was idle for long enough. It returns where to go on, or ''.
local function adopt(idle, from)
  local page = redis.call('XPENDING', source, group, 'IDLE', idle, from, '+', 100)
  for _, entry in ipairs(page) do
    local id = entry[1]
    if not (redis.call('ZSCORE', untils, id) or redis.call('ZSCORE', laters, id) or redis.call('ZSCORE', again, id)) then
      due(id)
    end
  end
  return #page == 100 and '(' .. page[100][1] or ''
end
