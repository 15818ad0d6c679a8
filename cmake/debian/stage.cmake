# Run by CPack on the staged trees, one folder per component: what Debian's policy wants of documents (12.1, 12.5, 12.7).
set(packages
    daemon=droppabled
    library=${CPACK_DEBIAN_LIBRARY_PACKAGE_NAME}
    development=libdroppable-dev
    tools=droppable-tools
    preload=libdroppable-preload
)
set(compress gzip -9 --no-name --force)
foreach(entry IN LISTS packages)
    string(REGEX MATCH "^([a-z]+)=(.*)$" entry ${entry})
    set(tree ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/${CMAKE_MATCH_1})
    set(package ${CMAKE_MATCH_2})
    set(documents ${tree}/usr/share/doc/${package})

    file(GLOB pages ${tree}/usr/share/man/man*/*)
    foreach(page IN LISTS pages)
        execute_process(COMMAND ${compress} ${page} COMMAND_ERROR_IS_FATAL ANY)
    endforeach()

    file(MAKE_DIRECTORY ${documents})
    file(READ ${CMAKE_CURRENT_LIST_DIR}/../../LICENSE license)
    file(WRITE ${documents}/copyright "droppable\n\n${license}")
    string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)
    file(
        WRITE ${documents}/changelog.Debian
        "droppable (${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}) unstable; urgency=medium\n\n"
        "  * Built from the source; NEWS says what is new.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${now}\n"
    )
    execute_process(COMMAND ${compress} ${documents}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)
    file(COPY_FILE ${CMAKE_CURRENT_LIST_DIR}/../../NEWS ${documents}/NEWS)
    execute_process(COMMAND ${compress} ${documents}/NEWS COMMAND_ERROR_IS_FATAL ANY)
endforeach()
# The daemon's documents were installed under the project's name.
file(COPY_FILE ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/daemon/usr/share/doc/droppable/droppabled.conf
     ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/daemon/usr/share/doc/droppabled/droppabled.conf
)
file(REMOVE_RECURSE ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/daemon/usr/share/doc/droppable)
