{{/* Permissions. */}}

{{/* (dict "root" $ "kind" Role|ClusterRole "name" … "namespace" … "labels" …): the metadata of an object. */}}
{{- define "stoker.rbacMetadata" -}}
metadata:
  name: {{ .name | quote }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include .labels .root | nindent 4 }}
{{- end -}}

{{/* The same with "rules" and "account": a role of the kind, bound to that account of the release's namespace. */}}
{{- define "stoker.role" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
{{ include "stoker.rbacMetadata" . }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
{{ include "stoker.rbacMetadata" . }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ .account | quote }}
    namespace: {{ .root.Release.Namespace | quote }}
{{- end -}}

{{/* The rules of what has a namespace, as in deploy/rbac.yaml. */}}
{{- define "stoker.rules" -}}
- apiGroups: [stoker.dev]
  resources: [hotstandbydeployments, hotstandbyjobs]
  # patch: the finalizer of those with deletionPolicy Drain.
  verbs: [list, watch, patch]
- apiGroups: [stoker.dev]
  resources: [hotstandbydeployments/status, hotstandbyjobs/status]
  verbs: [patch]
# patch: the finalizer, by which a claim's pod is released before the claim is gone.
- apiGroups: [stoker.dev]
  resources: [standbyclaims]
  verbs: [get, list, watch, patch]
- apiGroups: [stoker.dev]
  resources: [standbyclaims/status]
  verbs: [patch]
# patch: the finalizer, by which held runs are cancelled before the object is gone.
- apiGroups: [stoker.dev]
  resources: [prescaledcronjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [stoker.dev]
  resources: [prescaledcronjobs/status]
  verbs: [update]
# patch: the finalizer, by which Jobs are let go before the object is gone. delete: ttlSecondsAfterFinished of a flow.
- apiGroups: [stoker.dev]
  resources: [jobflows]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [stoker.dev]
  resources: [daemonjobs, nodebatchjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [stoker.dev]
  resources: [jobflows/status, daemonjobs/status, nodebatchjobs/status]
  verbs: [update]
- apiGroups: [stoker.dev]
  resources: [jobtemplates]
  verbs: [list, watch]
- apiGroups: [stoker.dev]
  resources: [jobtemplates/status]
  verbs: [patch]
# Owner references that block deletion, where the cluster's admission asks for it.
- apiGroups: [stoker.dev]
  resources:
    - hotstandbydeployments/finalizers
    - hotstandbyjobs/finalizers
    - prescaledcronjobs/finalizers
    - jobflows/finalizers
    - daemonjobs/finalizers
    - nodebatchjobs/finalizers
  verbs: [update]
# patch: labels and annotations, for claims, afterUse Replace, stateLabels and disruption; the finalizer of a
# NodeBatchJob's pods.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete, patch]
# patch: the finalizer that keeps a Job until its outcome is recorded.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete, patch]
# Policies lie in ConfigMaps. All are watched by their metadata, only those that an object names are read.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* The rules of what has no namespace. */}}
{{- define "stoker.clusterRules" -}}
# Idle pods on cordoned or lost nodes are replaced elsewhere, and DaemonJobs and NodeBatchJobs work on every node.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
# At its start, to tell whether the CRDs are of its own version.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get]
  resourceNames:
    {{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
    - {{ base $path | trimSuffix ".yaml" }}.stoker.dev
    {{- end }}
{{- end -}}

{{- define "stoker.reportsRules" -}}
- apiGroups: [stoker.dev]
  resources: [nodebatchjobs]
  verbs: [list, watch]
# Which pods may report, and how they ended. get: an Event is put on a pod that the watch has yet to show.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The Events that pods ask for. It changes none.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- define "stoker.reportsClusterRules" -}}
# Which nodes are expected to report.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end -}}
