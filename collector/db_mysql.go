package collector

// dbMySQLModule is the connections to MySQL and MariaDB (db_mysql/km_dbase.c, km_my_con.c).
// No other database module counts anything.
var dbMySQLModule = Module{
	Subsystem: "db_mysql",
	Summary:   "Failed connections to MySQL or MariaDB",
	Queries: []Query{statistics("mysql",
		Metric{Field: "mysql:driver_errors", Name: "driver_errors_total", Kind: counter, Help: "Times that Kamailio could not connect to MySQL or MariaDB, or lost the connection. Each attempt counts. Queries that the database refuses are not counted."},
	)},
}
