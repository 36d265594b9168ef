// The dashboards and rules of kamailio_exporter as a Prometheus monitoring mixin
// (https://monitoring.mixins.dev/), for those who build their monitoring with jsonnet.
//
//   jb install github.com/kamailio-exporter/kamailio_exporter@main
//   local kamailio = import 'github.com/kamailio-exporter/kamailio_exporter/dashboards/mixin/mixin.libsonnet';
//
// It imports the files that the others use: nothing is generated here.
{
  grafanaDashboards+:: {
    'kamailio-calls.json': import '../kamailio-calls.json',
    'kamailio-exporter.json': import '../kamailio-exporter.json',
    'kamailio-fleet.json': import '../kamailio-fleet.json',
    'kamailio-gateways.json': import '../kamailio-gateways.json',
    'kamailio-overview.json': import '../kamailio-overview.json',
    'kamailio-resources.json': import '../kamailio-resources.json',
    'kamailio-security.json': import '../kamailio-security.json',
    'kamailio-trunks.json': import '../kamailio-trunks.json',
  },
  prometheusAlerts+:: {
    groups+:
      std.parseYaml(importstr '../../alerts/kamailio-alerts.yml').groups +
      std.parseYaml(importstr '../../alerts/kamailio-admin-alerts.yml').groups,
  },
  prometheusRules+:: {
    groups+: std.parseYaml(importstr '../../alerts/kamailio-rules.yml').groups,
  },
}
