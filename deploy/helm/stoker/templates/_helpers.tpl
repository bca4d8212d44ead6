{{/* Names, labels and what more than one template needs. */}}

{{- define "stoker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of what has no namespace: releases of one name in two namespaces do not meet. */}}
{{- define "stoker.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "stoker.fullname" .) -}}
{{- end -}}

{{- define "stoker.reportsName" -}}
{{- include "stoker.fullname" . }}-reports
{{- end -}}

{{- define "stoker.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stoker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the account, or let the chart create it (serviceAccount.create)" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "stoker.reportsServiceAccount" -}}
{{- if .Values.reports.serviceAccount.create -}}
{{- default (include "stoker.reportsName" .) .Values.reports.serviceAccount.name -}}
{{- else -}}
{{- required "reports.serviceAccount.name: name the account, or let the chart create it (reports.serviceAccount.create)" .Values.reports.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "stoker.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stoker.labels" -}}
{{ include "stoker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: stoker
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* (dict "root" $ "image" .Values.image) */}}
{{- define "stoker.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Whether a Lease decides who works. */}}
{{- define "stoker.hasLease" -}}
{{- if gt (int .Values.replicas) 1 }}true{{ end -}}
{{- end -}}

{{- define "stoker.leaseName" -}}
{{- default (include "stoker.fullname" .) .Values.lease.name -}}
{{- end -}}

{{- define "stoker.leaseNamespace" -}}
{{- default .Release.Namespace .Values.lease.namespace -}}
{{- end -}}

{{- define "stoker.claimsSecret" -}}
{{- default (printf "%s-claims" (include "stoker.fullname" .)) .Values.claims.tls.secretName -}}
{{- end -}}

{{- define "stoker.reportsKeySecret" -}}
{{- default (include "stoker.reportsName" .) .Values.reports.key.existingSecret -}}
{{- end -}}

{{/* As pods of all namespaces reach the report service. */}}
{{- define "stoker.reportsUrl" -}}
{{- $scheme := ternary "https" "http" (not (empty .Values.reports.callbacks.tlsSecret)) -}}
{{- printf "%s://%s.%s:%d" $scheme (include "stoker.reportsName" .) .Release.Namespace (int .Values.reports.callbacks.port) -}}
{{- end -}}

{{/* Of pods and containers: what the Pod Security level `restricted` asks for, and no writable root. */}}
{{- define "stoker.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "stoker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A quantity of memory in MiB, or nothing if it is written in another unit than Mi or Gi. */}}
{{- define "stoker.mebibytes" -}}
{{- if regexMatch "^[0-9]+Mi$" . -}}
{{- trimSuffix "Mi" . -}}
{{- else if regexMatch "^[0-9]+Gi$" . -}}
{{- mul 1024 (trimSuffix "Gi" . | int) -}}
{{- end -}}
{{- end -}}

{{/* The rules of what has a namespace, as in deploy/rbac.yaml. */}}
{{- define "stoker.rules" -}}
- apiGroups: [stoker.dev]
  resources: [hotstandbydeployments, hotstandbyjobs]
  # patch: the finalizer of those with deletionPolicy Drain.
  verbs: [get, list, watch, patch]
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
  verbs: [get, list, watch]
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
  verbs: [get, list, watch]
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
