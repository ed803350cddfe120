{{- define "tornado-backups.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "tornado-backups.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "tornado-backups.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tornado-backups.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tornado-backups.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tornado-backups.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tornado-backups.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "tornado-backups.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tornado-backups.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tornado-backups.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tornado-backups.secret" -}}
{{- default (include "tornado-backups.fullname" .) .Values.secret.name -}}
{{- end -}}

{{- /* The entries that the secret holds, as a JSON list. */ -}}
{{- define "tornado-backups.secretKeys" -}}
{{- if eq .Values.secret.kind "Secret" -}}
{{- keys .Values.secret.data | sortAlpha | toJson -}}
{{- else if eq .Values.secret.kind "SealedSecret" -}}
{{- keys .Values.secret.encryptedData | sortAlpha | toJson -}}
{{- else if eq .Values.secret.kind "existing" -}}
{{- .Values.secret.keys | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{- define "tornado-backups.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* "true" when several servers can share the work, which takes PostgreSQL and S3. */ -}}
{{- define "tornado-backups.shareable" -}}
{{- if and (eq .Values.database.type "postgresql") .Values.storage.url -}}true{{- end -}}
{{- end -}}

{{- /* Refuses combinations that would lose data or never start, in one sentence each. */ -}}
{{- define "tornado-backups.check" -}}
{{- $keys := include "tornado-backups.secretKeys" . | fromJsonArray -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}
{{- if and $several (not (include "tornado-backups.shareable" .)) -}}
{{- fail "several servers need database.type=postgresql and storage.url; set replicaCount=1 and autoscaling.enabled=false, or both of these" -}}
{{- end -}}
{{- if and $several (not (has "jwt-secret-key" $keys)) -}}
{{- fail "several servers need the same JWT key; give the secret an entry jwt-secret-key" -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (not (include "tornado-backups.shareable" .)) -}}
{{- fail "without persistence.enabled backups would vanish with the pod; enable it, or use PostgreSQL and S3" -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (not (has "jwt-secret-key" $keys)) -}}
{{- fail "without persistence.enabled every restart would end all sessions; give the secret an entry jwt-secret-key" -}}
{{- end -}}
{{- if and (eq .Values.database.type "postgresql") (not .Values.database.hostname) (not (has "db-url" $keys)) -}}
{{- fail "database.type=postgresql needs database.hostname, or an entry db-url in the secret" -}}
{{- end -}}
{{- if and (eq .Values.secret.kind "Secret") (not .Values.secret.data) -}}
{{- fail "secret.kind=Secret needs entries below secret.data" -}}
{{- end -}}
{{- if and (eq .Values.secret.kind "SealedSecret") (not .Values.secret.encryptedData) -}}
{{- fail "secret.kind=SealedSecret needs entries below secret.encryptedData; make them with kubeseal" -}}
{{- end -}}
{{- end -}}
