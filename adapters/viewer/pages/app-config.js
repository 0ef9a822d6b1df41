/*
 * How the viewer is set up for this hub (https://docs.ohif.org/configuration/configurationFiles).
 *
 * One source of data, this hub's /dicom-web. Whatever would load from an address of somebody's choosing stays off:
 * other data sources, configurations and customizations named in the address.
 */
"use strict";
(() => {
  const root = `${location.origin}/dicom-web`;
  const narrow = window.matchMedia("(max-width: 700px)").matches;
  const closed = { leftPanelClosed: true, rightPanelClosed: true };
  const refused = (error) => {
    if (error && (error.status === 401 || (error.request && error.request.status === 401))) {
      window.yixie.leave();
    }
  };

  window.config = {
    name: "yixie-hub",
    routerBasename: "/viewer",
    extensions: [
      {
        id: "yixie.token",
        preRegistration: ({ servicesManager }) => {
          servicesManager.services.userAuthenticationService.setServiceImplementation({
            getAuthorizationHeader: window.yixie.authorization,
            handleUnauthenticated: window.yixie.leave,
          });
        },
      },
    ],
    modes: [],
    // On a telephone the panels beside the image would leave it a strip; they open at a touch.
    modesConfiguration: narrow
      ? { "@ohif/mode-longitudinal": { routes: { 0: { layoutInstance: { props: { $merge: closed } } } } } }
      : {},
    customizationService: {
      global: {
        // The list with a column and a filter for the patient's number, and the one that is translated.
        "workList.variant": { $set: "legacy" },
        // The guided tour is English only.
        "ohif.tours": { $set: [] },
      },
    },
    showStudyList: true,
    // Whose images these are stands beside them from the start; a telephone has room for it at a touch.
    showPatientInfo: narrow ? "visibleCollapsed" : "visible",
    maxNumberOfWebWorkers: 3,
    showWarningMessageForCrossOrigin: true,
    showCPUFallbackMessage: false,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    groupEnabledModesFirst: true,
    allowMultiSelectExport: false,
    showErrorDetails: "production",
    investigationalUseDialog: { option: "configure", days: 30 },
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    defaultDataSourceName: "hub",
    dataSources: [
      {
        namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
        sourceName: "hub",
        configuration: {
          friendlyName: "医协枢纽 Yixie Hub",
          name: "hub",
          qidoRoot: root,
          wadoRoot: root,
          wadoUriRoot: `${location.origin}/wado`,
          qidoSupportsIncludeField: true,
          supportsWildcard: true,
          supportsFuzzyMatching: true,
          imageRendering: "wadors",
          thumbnailRendering: "wadors",
          enableStudyLazyLoad: true,
          dicomUploadEnabled: false,
          omitQuotationForMultipartRequest: true,
          // Documents and videos are not in this list: they would be asked for by address alone, without the token.
          singlepart: "bulkdata",
          bulkDataURI: {
            enabled: true,
            // The hub writes the address under which it is known; this browser may have reached it by another.
            transform: (address) => new URL(address, location.origin).pathname,
            startsWith: "/dicom-web/",
            prefixWith: `${root}/`,
          },
        },
      },
    ],
    httpErrorHandler: refused,
  };
})();
