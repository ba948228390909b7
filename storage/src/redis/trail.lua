-- Trails: hashes of the number of a span of time to what was acknowledged in it. Only spans in which anything was count,
-- so that a long outage does not push them out.

-- Of these trails together, oldest first.
local function spans_of(trails)
  local known, spans = {}, {}
  for _, trail in ipairs(trails) do
    for _, span in ipairs(redis.call('HKEYS', trail)) do
      if not known[span] then spans[#spans + 1] = span end
      known[span] = true
    end
  end
  table.sort(spans, function(one, other) return tonumber(one) < tonumber(other) end)
  return spans
end

-- Before a span is added: then `kept` of them are there.
local function forget_old_spans(trail, kept)
  local spans = spans_of({trail})
  for at = 1, #spans + 1 - kept do redis.call('HDEL', trail, spans[at]) end
end

