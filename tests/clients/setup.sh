#!/usr/bin/env bash
# Installs the real clients and servers of the test suites into .cache/: a Python environment, the JDBC test program with its
# drivers, Apache Kafka with Connect and Debezium, and links to the programs of PostgreSQL and MariaDB. `setup.sh python kafka
# postgres` installs only these components. If nothing has changed, the script does nothing and takes a fraction of a second. It
# needs python3, Java 17 and mvn, and installs PostgreSQL and MariaDB with apt-get if that is possible.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The driver versions: the newest on Maven Central, and an older one that many BI tools include.
jdbc_versions=(18.3.0 17.0.0)
venv=.cache/venv
java=.cache/java
kafka=.cache/kafka
postgres=.cache/postgres
mariadb=.cache/mariadb

fail() { echo "setup: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: install it ($2)"; }

for component in "$@"; do
  [[ $component =~ ^(python|jdbc|kafka|postgres|mariadb)$ ]] \
    || fail "unknown component $component; use python, jdbc, kafka, postgres or mariadb, or omit it to install all"
done
wanted=" ${*:-python jdbc kafka postgres mariadb} "
is_wanted() { [[ $wanted == *" $1 "* ]]; }

# Succeeds if the folder $1 was built from the current inputs. The remaining arguments are the inputs.
is_current() { [ -f "$1/.made-from" ] && [ "$(cat "$1/.made-from")" = "$(cat "${@:2}" | sha256sum)" ]; }
mark_current() { cat "${@:2}" | sha256sum > "$1/.made-from"; }

python_inputs=(tests/clients/requirements.txt)
if is_wanted python && ! is_current $venv "${python_inputs[@]}"; then
  need python3 "apt-get install python3 python3-venv"
  echo "setup: Python environment in $venv"
  [ -x $venv/bin/python ] || python3 -m venv $venv || fail "cannot create a Python environment: apt-get install python3-venv"
  $venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt \
    || fail "pip could not install tests/clients/requirements.txt: see the message above"
  mark_current $venv "${python_inputs[@]}"
fi

java_inputs=(tests/clients/java/pom.xml tests/clients/java/src/main/java/*.java tests/clients/setup.sh)
if is_wanted jdbc && ! is_current $java "${java_inputs[@]}"; then
  need java "apt-get install openjdk-17-jdk-headless"
  need mvn "apt-get install maven"
  echo "setup: JDBC test program and drivers ${jdbc_versions[*]} in $java"
  mkdir -p $java
  mvn -q -B -f tests/clients/java/pom.xml package -DbuildDirectory="$PWD/$java/build" \
    || fail "maven could not build tests/clients/java: see the message above"
  cp $java/build/jdbc-check.jar $java/build/lib/*.jar $java/
  for version in "${jdbc_versions[@]}"; do
    driver=flight-sql-jdbc-driver-$version.jar
    [ -f "$java/$driver" ] || mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      -Dartifact="org.apache.arrow:flight-sql-jdbc-driver:$version" -DoutputDirectory="$PWD/$java" \
      || fail "maven could not fetch the JDBC driver $version"
    [ -f "$java/$driver" ] || fail "$driver is missing although maven reported success"
  done
  mark_current $java "${java_inputs[@]}"
fi

kafka_inputs=(tests/clients/kafka/pom.xml tests/clients/setup.sh)
if is_wanted kafka && ! is_current $kafka "${kafka_inputs[@]}"; then
  need java "apt-get install openjdk-17-jdk-headless"
  need mvn "apt-get install maven"
  echo "setup: Apache Kafka, Connect and Debezium in $kafka"
  rm -rf $kafka
  mkdir -p $kafka
  mvn -q -B -f tests/clients/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$PWD/$kafka" -DincludeScope=runtime \
    || fail "maven could not fetch Apache Kafka, Connect and Debezium: see the message above"
  mark_current $kafka "${kafka_inputs[@]}"
fi

# Prints the folder of PostgreSQL's programs: from the newest Debian package, or from the path.
find_postgres() {
  local folder
  folder=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  if [ -z "$folder" ] && command -v postgres >/dev/null; then
    folder=$(dirname "$(readlink -f "$(command -v postgres)")")
  fi
  [ -n "$folder" ] && [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ] && echo "$folder"
}

install_postgres() {
  local how="apt-get install postgresql"
  command -v apt-get >/dev/null || fail "PostgreSQL is missing: install its server, 13 or newer"
  [ "$(id -u)" -eq 0 ] || fail "PostgreSQL is missing: install it ($how)"
  echo "setup: $how"
  # Prevent the Debian package from creating and starting a server on the default port. The tests start their own server.
  [ -e /etc/postgresql-common/createcluster.conf ] \
    || { mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf; }
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
      -o Dpkg::Options::=--force-confold install postgresql >/dev/null; } \
    || fail "apt-get could not install PostgreSQL: see the message above"
}

if is_wanted postgres && ! [ -x $postgres/initdb ]; then
  programs=$(find_postgres) || { install_postgres; programs=$(find_postgres); } \
    || fail "PostgreSQL was installed, but its server is neither in /usr/lib/postgresql nor on the path"
  mkdir -p .cache
  ln -sfn "$programs" $postgres
fi

# Prints the path of a program, which may be in a folder for administrators.
find_program() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1"; }

install_mariadb() {
  local how="apt-get install mariadb-server"
  command -v apt-get >/dev/null || fail "MariaDB is missing: install its server, 10.6 or newer"
  [ "$(id -u)" -eq 0 ] || fail "MariaDB is missing: install it ($how)"
  echo "setup: $how"
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install mariadb-server >/dev/null; } \
    || fail "apt-get could not install MariaDB: see the message above"
}

if is_wanted mariadb && ! { [ -x $mariadb/mariadbd ] && [ -x $mariadb/mariadb-install-db ]; }; then
  find_program mariadbd >/dev/null || install_mariadb
  rm -rf $mariadb
  mkdir -p $mariadb
  for program in mariadb-install-db mariadbd; do
    path=$(find_program $program) || fail "MariaDB was installed, but $program is not on the path"
    ln -s "$path" $mariadb/$program
  done
fi
