{{/* 52 characters leave room for the suffixes -headless and -0, and for the revision that a StatefulSet adds to labels. */}}
{{- define "entrepot.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "entrepot.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ quote .Release.Name }}
{{- end -}}

{{- define "entrepot.labels" -}}
{{ include "entrepot.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The port of the address at a key of the configuration, such as 5000 of :5000; called with the root and the key. */}}
{{- define "entrepot.port" -}}
{{- $address := get (index . 0).Values.config (index . 1) | toString -}}
{{- if not (regexMatch "^(0\\.0\\.0\\.0|\\[::\\])?:[1-9][0-9]*$" $address) -}}
{{- fail (printf "config.%s must be on all addresses of the pod, as in \":5000\": the Service and the probes come from outside" (index . 1)) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end -}}

{{/* Refuses what entrepot itself would accept and a pod can't have. */}}
{{- define "entrepot.check" -}}
{{- $config := .Values.config -}}
{{- if not (hasPrefix "/" (toString $config.data_dir)) -}}
{{- fail "config.data_dir must be an absolute path: the volume is mounted there" -}}
{{- end -}}
{{- with $config.index_dir -}}
{{- $index := toString . -}}
{{- $mounted := hasPrefix (printf "%s/" (trimSuffix "/" $config.data_dir)) $index -}}
{{- range $.Values.extraVolumeMounts -}}
{{- $mounted = or $mounted (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $index)) -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail "config.index_dir must be below config.data_dir, or in one of extraVolumeMounts: nothing else can be written to" -}}
{{- end -}}
{{- end -}}
{{- range $name, $registry := $config.registries | default dict -}}
{{- $logins := get ($registry | default dict) "credentials" | default list -}}
{{- range (kindIs "map" $logins | ternary (list $logins) $logins) -}}
{{- if .password -}}
{{- fail (printf "config.registries.%s.credentials.password would be readable in a ConfigMap: put it into a Secret, name that in secrets, and give password_file" $name) -}}
{{- end -}}
{{- end -}}
{{- range (get ($registry | default dict) "endpoints" | default list) -}}
{{- if regexMatch "://[^/]*:[^/]*@" (toString .proxy) -}}
{{- fail (printf "config.registries.%s.endpoints: a proxy's password would be readable in a ConfigMap: give the proxy by HTTPS_PROXY in extraEnv, from a Secret" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $max := dig "cache" "max_size" "" $config -}}
{{- if and (not .Values.persistence.enabled) (or (not $max) (hasSuffix "%" (toString $max))) -}}
{{- fail "config.cache.max_size must be a size such as 90GiB when persistence is off: an emptyDir shares the node's file system" -}}
{{- end -}}
{{- end -}}

{{/* Seconds of config.shutdown_grace, and 30 more to put transfers away and close the index. */}}
{{- define "entrepot.terminationGrace" -}}
{{- $start := toDate "2006-01-02" "2000-01-01" -}}
{{- $end := mustDateModify (.Values.config.shutdown_grace | default "30s" | toString) $start -}}
{{- sub (unixEpoch $end) (unixEpoch $start) | add 30 -}}
{{- end -}}

{{/* 90% of the memory limit in bytes, so that Go collects garbage before the kernel kills; nothing without a limit. */}}
{{- define "entrepot.goMemLimit" -}}
{{- with dig "limits" "memory" "" .Values.resources -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $number := regexFind "^[0-9.]+" (toString .) -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- if not (and $number (hasKey $units $unit)) -}}
{{- fail "resources.limits.memory must be a text with one of the units Ki, Mi, Gi, k, M, G, or in bytes" -}}
{{- end -}}
{{- mulf 0.9 (float64 $number) (get $units $unit) | int64 -}}
{{- end -}}
{{- end -}}
