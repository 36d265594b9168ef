module github.com/kamailio-exporter/kamailio_exporter/dashboards

go 1.26.0

require github.com/kamailio-exporter/kamailio_exporter v0.0.0

require github.com/prometheus/prometheus v0.313.0 // indirect

replace github.com/kamailio-exporter/kamailio_exporter => ../
