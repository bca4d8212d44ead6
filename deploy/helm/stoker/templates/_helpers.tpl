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

{{/* By app.kubernetes.io/name=stoker the command line finds the operator's pods, and nothing else. */}}
{{- define "stoker.selector" -}}
app.kubernetes.io/name: stoker
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stoker.reportsSelector" -}}
app.kubernetes.io/name: stoker-reports
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stoker.labels" -}}
{{ include "stoker.selector" . }}
app.kubernetes.io/component: operator
{{ include "stoker.commonLabels" . }}
{{- end -}}

{{- define "stoker.reportsLabels" -}}
{{ include "stoker.reportsSelector" . }}
app.kubernetes.io/component: reports
{{ include "stoker.commonLabels" . }}
{{- end -}}

{{- define "stoker.commonLabels" -}}
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
