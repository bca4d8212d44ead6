-- The health of Stoker's objects for Argo CD, by the conditions Ready, Reconciling and Stalled. One script for all kinds; it
-- goes into the ConfigMap argocd-cm:
--
--   resource.customizations: |
--     stoker.dev/*:
--       health.lua: |
--         <this file>
--
-- Degraded: it cannot go on, or has failed.  Progressing: it is under way, or was not looked at since the spec changed.
-- Suspended: it is paused.  Healthy: the rest, also a pool whose standby is short just now.

local status = obj.status or {}
local spec = obj.spec or {}

local function health(state, message)
  return {status = state, message = message}
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(type, wanted)
  return conditions[type] ~= nil and conditions[type].status == wanted
end

local function words(type)
  return conditions[type] ~= nil and conditions[type].message or ""
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "it is being deleted")
end
-- A JobTemplate is nothing but a text: without conditions nothing is wrong with it.
if obj.kind == "JobTemplate" and next(conditions) == nil then
  return health("Healthy", "")
end
local observed = status.observedGeneration
if observed == nil or (obj.metadata.generation ~= nil and observed < obj.metadata.generation) then
  return health("Progressing", "the operator has yet to look at it")
end
-- A claim waits for a pod, has it, or is over.
if obj.kind == "StandbyClaim" then
  if status.phase == "Pending" then
    return health("Progressing", words("Bound"))
  end
  return health("Healthy", words("Bound"))
end
if is("Stalled", "True") then
  return health("Degraded", words("Stalled"))
end
local cron = spec.cronJob ~= nil and spec.cronJob.spec or {}
if spec.paused == true or spec.suspend == true or cron.suspend == true then
  return health("Suspended", words("Ready"))
end
if is("Reconciling", "True") then
  return health("Progressing", words("Reconciling"))
end
if is("Ready", "True") then
  return health("Healthy", words("Ready"))
end
return health("Progressing", words("Ready"))
