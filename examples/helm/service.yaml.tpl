{{- /*
A Service with a Mapping in its annotation, as a template: one release per version, all of one prefix.
Copy it into a chart as templates/service.yaml together with values.yaml, then:

  helm template shop-gray . > /tmp/rules.yaml && canary-mw check /tmp/rules.yaml
  helm upgrade --install shop-stable . --set service.name=shop-stable,service.track=stable,gray=null
  helm upgrade --install shop-gray   . --set gray.weight=5

It is not YAML before Helm renders it, so it is not in examples/rules.
*/ -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .Values.service.name }}
  namespace: {{ .Release.Namespace }}
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: getambassador.io/v2
      kind: Mapping
      name: {{ .Values.service.name }}_mapping
      prefix: {{ .Values.service.prefix }}
      service: {{ .Values.service.name }}.{{ .Release.Namespace }}:{{ .Values.service.port }}
      {{- with .Values.gray }}
      {{- /* `with .weight` would drop a weight of 0, and a Mapping without weight shares what is left. */}}
      {{- if hasKey . "weight" }}
      weight: {{ .weight }}
      {{- end }}
      {{- with .headers }}
      headers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
spec:
  selector:
    app: {{ .Values.service.app }}
    track: {{ .Values.service.track }}
  ports:
    - name: http
      port: {{ .Values.service.port }}
      targetPort: http-api
