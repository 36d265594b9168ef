module github.com/kamailio-exporter/kamailio_exporter/dashboards

go 1.26

replace github.com/kamailio-exporter/kamailio_exporter => ../

require github.com/grafana/grafana-foundation-sdk/go v0.0.18
